"""`farshore doctor` of a vault, a plan, a subscription: each module makes one kind of checklist; `page` prints them."""

"""What agent and process server say to each other over the data port: frames, and the messages inside them."""

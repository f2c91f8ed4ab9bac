"""Pure decisions, one file for each kind: what is observed and the time go in, actions and a status come out."""

"""The Conductor: the loop that decides, the clerk that does what is rare, the door for clients."""

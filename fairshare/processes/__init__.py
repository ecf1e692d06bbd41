"""What servers and daemons have in common: started with a label, ended with all they started."""

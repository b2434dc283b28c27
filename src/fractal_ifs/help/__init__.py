"""What each command takes, from the typed keys and conf/: for its help, and for completion in a shell."""

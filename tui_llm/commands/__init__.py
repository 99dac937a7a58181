"""What each command of the command line does: one function a command, named like it. Imported only when it is called."""

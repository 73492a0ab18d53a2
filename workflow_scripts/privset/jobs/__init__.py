"""One job of the workflow: its cell, its configuration, its random numbers, checkpoint and progress, and the grids that say which
jobs there are. It opens the vault for a method and closes the books afterwards, and never looks inside."""

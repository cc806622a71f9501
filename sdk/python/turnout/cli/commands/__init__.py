"""The commands, a module for each family; `register` adds them to the tree."""

"""The compiled modules. Private: the public names are re-exported one level up."""

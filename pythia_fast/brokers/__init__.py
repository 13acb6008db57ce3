"""Where messages come from and where results go. No broker client is imported here."""

"""Drills: a fault on purpose while an app runs, and an account of every row that went in."""

"""The processes that run handlers: how they are born, what they do, and what happens when one dies."""

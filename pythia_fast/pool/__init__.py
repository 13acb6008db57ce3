"""The processes that run handlers: how they are born, what they do, and what happens when one dies."""

#: True in the nursery and in pool processes, where nothing may start a run of its own.
in_pool = False

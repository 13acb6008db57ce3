"""From source to sink: the threads of the runtime process and what they decide."""

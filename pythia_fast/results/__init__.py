"""What a handler returned, on its way to records: which rows of it are sent on, as which columns, in which bytes."""

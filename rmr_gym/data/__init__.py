"""What was recorded: the format, its writer and its reader, splits, batches, RAM as bits."""

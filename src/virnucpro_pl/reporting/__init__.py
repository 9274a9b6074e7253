"""What people look at: the report of a run as one page, and figures for papers. Made from result files alone."""

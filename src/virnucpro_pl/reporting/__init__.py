"""Report page, figures and formats for other tools, made from the result files alone."""

"""Published weights: where they come from and how they become our modules, without running anything in them."""

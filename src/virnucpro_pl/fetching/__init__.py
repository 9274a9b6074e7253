"""Downloads from slow, busy or faulty servers."""

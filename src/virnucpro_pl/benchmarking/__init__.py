"""Measuring how near the encoders and the whole of ``predict`` come to what the device can multiply."""

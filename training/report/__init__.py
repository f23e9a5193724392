"""What a finished run tells of itself: signs beside chance levels, remedies, curves."""

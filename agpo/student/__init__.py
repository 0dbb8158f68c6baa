"""The student: made from labels, calibrated, exported, scored where it serves, and judged."""

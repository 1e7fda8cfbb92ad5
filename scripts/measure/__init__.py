"""What loadtest.sh, compare.sh and profile.sh are made of. The standard library only; charts are
drawn by a Python of their own (tools.py)."""

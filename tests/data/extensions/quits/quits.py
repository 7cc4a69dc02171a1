import sys

print("I will not play today")
sys.exit(3)

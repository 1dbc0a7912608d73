"""The tasks: each module here declares the task of its name, with dashes for underscores. There is no other
registry.
"""

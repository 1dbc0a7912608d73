"""The tasks: each module here declares the task of its name, with dashes for underscores. Nothing is registered
elsewhere.
"""

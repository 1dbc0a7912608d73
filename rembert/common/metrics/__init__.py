"""Scores, as XTREME (Hu et al., 2020) and the data sets' authors compute them. Needs numpy alone.

Each is counted one example at a time, so that data of any size need little memory.
"""

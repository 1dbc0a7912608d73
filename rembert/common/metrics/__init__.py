"""Scores, as XTREME (Hu et al., 2020) and the authors of the data sets compute them. They need NumPy alone.

Each class counts one example at a time, so that data of any size need little memory.
"""

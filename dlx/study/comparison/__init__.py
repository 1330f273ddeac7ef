"""Runs that were trained, side by side: groups of seeds, their metrics and costs.

workdirs.py     what a workdir holds of a run, as data: nothing of it is executed
groups.py       runs whose configs differ in the seed alone
differences.py  quality and cost of groups, and how far they lie apart
cautions.py     what keeps groups from being compared, a line each
tables.py       all of it for people and for programs
"""

"""`kseg.benchmark --what=gpu`: kernels, networks, the trainer and peers within a time limit.

tasks         what is measured, in the order of its importance
measurements  how kseg's kernels, networks and training program are measured
child         the process in which one part is measured
processes     starts such a process, reads its results and ends it at its time limit
suite         runs the parts one after the other until the time is over
report        the JSON and the Markdown file
targets       what the results should reach
"""

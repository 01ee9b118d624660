"""`kseg.benchmark --what=gpu`: kernels, networks, the trainer and peers within a time limit.

tasks      what is measured, in the order of its importance
kernels, networks, train    the measurements of kseg
child      the process in which one part is measured
processes  starts such a process and reads its results
suite      runs the parts one after the other until the time is over
report     the JSON and the Markdown file, and the targets
"""

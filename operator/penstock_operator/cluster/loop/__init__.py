"""What keeps turns going: when each job is due, the threads that take turns, whether the CRDs allow it, and
what others see of all that. `turn` is one turn; what it does is done by the modules around this package.
"""

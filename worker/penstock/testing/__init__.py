"""For tests of jobs: one function alone (`harness`), and a whole job in this process (`run_job`)."""

from penstock.testing.harness import Harness, harness
from penstock.testing.jobrun import JobRun, run_job

__all__ = ["Harness", "JobRun", "harness", "run_job"]

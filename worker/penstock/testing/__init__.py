"""What an author tests a job with: `harness` for one function, `run_job` for a whole one."""

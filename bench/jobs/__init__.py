"""The jobs that are measured. They are job files like a user's; `workload.job_file` copies one under a new name."""

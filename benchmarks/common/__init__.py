"""What the chapters share: the machine, a service to measure, the ceiling, CPU time, figures, a chapter's blocks."""

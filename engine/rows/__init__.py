"""What a task's rows become, shown without a build."""

"""Shows what a task's rows become: previews without a build, and single rows as a training sees them."""

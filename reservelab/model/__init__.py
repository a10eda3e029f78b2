"""What is fixed: filesystems, schemes, machines, mixes and the scenarios made of them."""

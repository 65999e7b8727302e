"""What post-training did: the stages of one lineage side by side, from four sides (arXiv:2504.02904). One file an aspect."""

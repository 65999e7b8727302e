"""Studies: questions about the stages of a lineage, one plug-in per file or folder."""

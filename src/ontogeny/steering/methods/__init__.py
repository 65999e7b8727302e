"""Ways to a steering vector, one small file each over the same parts: texts are read, a direction is fitted, edits come out."""

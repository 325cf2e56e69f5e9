"""The chapter about answers that are given again."""

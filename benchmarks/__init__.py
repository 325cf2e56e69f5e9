"""What Shoal costs and carries, measured: a folder for each chapter of docs/ that has figures.

``python -m benchmarks.CHAPTER.run`` measures, from the repository's folder, and ``python -m benchmarks.CHAPTER.report``
brings the chapter's tables and plots up to date. What chapters share is in ``common``; README.md lists them.
"""

"""The result of an experiment as one HTML page that needs nothing else: tables, and plots as inline SVG.

Pure text from figures: the same replays give the same page. Colours are CSS variables, so the page follows the reader's
light or dark scheme; a policy keeps its colour in all plots. What a plot shows stands in a table, too.
"""

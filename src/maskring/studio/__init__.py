"""``maskring studio``: outline, follow, correct and export in a browser.

A local server holds the clips, the projects and the tracker; a page of plain ES modules, in ``page/``, shows them.
"""

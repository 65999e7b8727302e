"""An example of a package that adds plug-ins to ontogeny through entry points."""

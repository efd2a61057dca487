"""One idea a file: when has the world moved?"""

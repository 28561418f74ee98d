"""x"""
def command_help(*a): return ""

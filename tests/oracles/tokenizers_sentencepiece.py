def generate(*a): pass
def check(*a): return 0

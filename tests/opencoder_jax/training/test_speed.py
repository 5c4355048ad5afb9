import time
from conftest import small_recipe
from opencoder_jax.training.loop import train
def test_x(data,tmp_path):
    for i in range(3):
        t=time.process_time(); w=time.time()
        train(small_recipe(), data, tmp_path/f"r{i}")
        print("train cpu %.2f wall %.2f"%(time.process_time()-t,time.time()-w))
    a,b=((tmp_path/f"r{i}/metrics.jsonl").read_text() for i in (0,2))
    print(a); print(b)

package bundle_test

import (
	"reflect"
	"testing"
	"time"

	"kiste/container/bundle"
)

func TestHealthcheckOfWishesAndImage(t *testing.T) {
	image := &bundle.Healthcheck{Test: []string{"CMD", "ask"}, Interval: time.Minute, Retries: 9}
	for _, tt := range []struct {
		name  string
		wish  bundle.Healthcheck
		image *bundle.Healthcheck
		want  *bundle.Healthcheck
	}{
		{name: "none"},
		{"the image's", bundle.Healthcheck{}, image, &bundle.Healthcheck{Test: []string{"CMD", "ask"}, Interval: time.Minute, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 9}},
		{"a part of it", bundle.Healthcheck{Interval: time.Second, Retries: 1}, image, &bundle.Healthcheck{Test: []string{"CMD", "ask"}, Interval: time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 1}},
		{"its own", bundle.Healthcheck{Test: []string{"CMD-SHELL", "true"}}, nil, &bundle.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: 30 * time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 3}},
		{"not wanted", bundle.Healthcheck{Test: []string{"NONE"}}, image, nil},
		{"an image without", bundle.Healthcheck{}, &bundle.Healthcheck{Test: []string{"NONE"}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := bundle.Wishes{Health: tt.wish}
			if got := w.Healthcheck(tt.image); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}
